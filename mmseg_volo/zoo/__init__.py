"""List results and costs of the shipped configs, and write the pages made from them."""

"""Recipe cards, their cost, and the pages made from both."""

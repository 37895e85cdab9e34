"""Train on a folder of images and masks: `mmseg-volo train --data FOLDER --model NAME`."""

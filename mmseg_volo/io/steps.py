"""Name the pipeline steps that several rooms check for."""

# both names of one registered class: configs and checkpoints of earlier versions have the second
MULTI_BAND_STEPS = ('LoadMultiBandImage', 'LoadBands')

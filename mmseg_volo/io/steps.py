"""Names of pipeline steps that several parts of the package look for."""

# both names of one registered class: configs and checkpoints of earlier versions have the second
MULTI_BAND_STEPS = ('LoadMultiBandImage', 'LoadBands')

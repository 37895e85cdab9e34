"""Both registered names of classes that other modules look for by name: the second one is that of saved configs."""

MULTI_BAND_STEPS = ('LoadMultiBandImage', 'LoadBands')
PHOTOMETRIC_STEPS = ('FastPhotoMetricDistortion', 'TablePhotoMetricDistortion')
RESUMABLE_SAMPLERS = ('ResumableInfiniteSampler', 'DrawSampler')

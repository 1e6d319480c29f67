"""The bundled small member of the Geo4D family: same modalities, sampler and training code, own small network."""

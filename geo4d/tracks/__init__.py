"""Points followed or matched over the frames of a video; sees pictures, knows no camera."""

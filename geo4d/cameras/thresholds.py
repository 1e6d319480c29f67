"""What the solver takes for noise, for an inlier, for a mover: one number for each meaning.

Three scales of error occur, and every limit is a multiple of one of them:

- ``pixel_error``: what a track is expected to err by before anything is known (``CameraSolveConfig``), pixels;
- the level: what good tracks of this shot do err by, measured from a solution (``points.level_of``), pixels;
- the noise of residuals: the standard deviation of a coordinate, with the unknowns accounted for (``judge.py``), pixels.
"""

from __future__ import annotations

INLIER = 3.0
"""Times the level. A point is an inlier of a solution, and stands still, while its error is at most this.

Unit: ratio of the point's error (standard deviation per coordinate, its own three unknowns accounted for) to the level.
Derivation: with Gaussian errors sigma the error of a point seen in n pictures is sigma sqrt(chi2(2n - 3) / (2n - 3)), and
the level, its ``GOOD_SHARE`` quantile, is 0.52 sigma for n = 3, 0.73 for 6, 0.87 for 20. Three levels lose 7 in 100 of
the inliers seen three times, 3 in 1,000 of those seen four times, 2 in a million of those seen six times, and none of
the longer ones. So the limit follows from the law of the errors, not from a scene.
"""

LOOSE = 3.0 * INLIER
"""Times the level, for solutions that are not adjusted yet: their cameras err as well as their tracks.

A rule of thumb: a camera just fitted to points that were just made from its neighbours adds errors of the tracks' size
for its pose and for their places; three times ``INLIER`` leaves room for both and still excludes what moves.
"""

STRAY = 20.0
"""Times the level. A single observation farther off is a wrong match, and is left out though its point may stay.

A point whose other n - 1 observations are good has a mean error of 20 levels / sqrt(2n - 3), more than ``INLIER`` of
them for all n up to 23: beyond that length one stray would not throw out the point, so it has to go alone.
"""

GOOD_SHARE = 0.15
"""Share of the tracked area whose error tells the level: movers and bad tracks may cover the rest of the pictures.

A quantile of a mixture is that of its good part as long as that part is larger: with a share g of good area the level is
the (0.15 / g) quantile of the good ones: 0.15 where all is good, 0.5 (the median) where seven tenths are not.
"""

LEAST_NOISE = 0.03
"""Pixels. No track is taken to be better.

Measured (``benchmarks/tracker_noise.py``): 0.013 per coordinate where nothing but interpolation and bytes makes an error;
twice that, as no real track is free of a change of view.
"""

MOST_RADIAL = 0.05
"""Spread of the radial distortion of an unknown lens: what phones and cameras leave in their pictures."""

READOUT_ERROR = 0.05
"""Share of the effect of rows read one after the other that is left when rotations known at whole frames take it out."""

NEEDED = 0.2
"""Share of the points that must need a moving camera: fewer may be movers in front of a camera that turns."""

ASSUMED_FOCAL = 0.1
"""Spread of the logarithm of a focal length from tracks above which the prior has its say.

A tenth in focal length is a tenth in depth against width, the error at which a result counts as half right
(``fusion.dense.CONFIDENCE_HALF``).
"""

MAY_ZOOM = (1.0, 0.04)
"""What the adjustment of the keyframes gains by a focal length of their own (times the noise of each further unknown),
and by how much these differ (largest to smallest, logarithm), from which on a shot is solved again as a zoom.

One is what chance gains, so nothing that a zoom explains is passed over; the second keeps shots out whose focal lengths
hardly differ. It only decides whether the work is done: ``ZOOMS`` decides what is taken.
"""

ZOOMS = 8.0
"""Times the noise of each further unknown that one focal length for all keyframes leaves unexplained, from which on the
lens zooms; as ``CameraSolveConfig.parallax_test``. Chance makes one.

Chosen on 72 rendered shots without and 18 with a zoom (seeds 9,912,000,000 and 9,913,000,000 on, held-out ones). Of 24
each that were drawn afterwards (``benchmarks/zooms.py``) none without and 20 with a zoom are taken for one, by all rules
together.
"""

AS_WELL = 2.0
"""Times the error of a path, all tracks of a shot: up to here a camera that turns and zooms takes its place.

What it has less, depths and lens distortion, is worth some tenths of it: zooms from a tripod err by 1.4 to 1.6 times as
much as the path that they are taken for; a held-out orbit that was taken for a zoom (sequence 28) by 4 times.
"""

LEAST_EXPLAINED = 0.2
"""Confidence of most frames (share of the tracks explained) below which no camera explains a shot."""

LEAST_GAIN = 0.02
"""Share of the area by which a hypothesis must explain more than the solution, among its own cameras and among those
around them, to be grown over the whole shot."""

LEAST_POINTS = 8
"""Points that a pose is fitted to: twice what determines it, so that one outlier is outvoted."""

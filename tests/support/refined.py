"""What several tests share."""

from geo4d.cameras.bundle import BundleConfig

FIXED = BundleConfig(focal="fixed")

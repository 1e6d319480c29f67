"""What tests share: scenes with exact answers. Nothing in the package uses it."""

"""What is known of the earth."""

EARTH_KM = 6371.0
"""Its mean radius."""

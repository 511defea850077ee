"""A change of the configuration is noticed, validated and compared with what runs."""

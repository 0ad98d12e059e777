"""Studies: several runs or measurements, one table."""

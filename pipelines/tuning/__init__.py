"""Tuning of the language model on a shop's own words and labels; the network itself runs behind ``adapters.tuner``."""

"""One module per stage of dvc.yaml: parse, load, call one function, save."""

"""What a deploy may set: schemas that mirror `configs/`, and the one loader."""

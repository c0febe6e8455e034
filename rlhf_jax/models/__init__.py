"""The only Flax: modules behind `Model(init, apply)`."""

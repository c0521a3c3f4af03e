"""What everything else may use: names, shapes, keys, meshes, units."""

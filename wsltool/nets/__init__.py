"""The only room with torch: networks, weights, preprocessing, training."""

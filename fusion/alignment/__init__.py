"""Two fused sides whose rows belong together become one nested space."""

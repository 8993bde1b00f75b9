"""What proposes the best documents: float32 and int8 products, on CPU and GPU."""

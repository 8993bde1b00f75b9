"""How a head is trained: recipe, plan, batches, losses, Lightning."""

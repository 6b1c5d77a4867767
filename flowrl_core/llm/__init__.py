"""Language models: the seam to them, what they are asked, what they answer."""

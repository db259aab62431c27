"""What can be sold: products with versioned prices, brought to the provider that needs to know them."""

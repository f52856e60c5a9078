"""The rules of prices: what a source may say, how sources make one price, and how far it is trusted."""

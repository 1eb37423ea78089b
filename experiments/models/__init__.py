"""Models: found, checked and loaded (loading), read out at chosen positions (head), pooled (pooling)."""

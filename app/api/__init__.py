"""HTTP only: what is asked and in which form it is answered."""

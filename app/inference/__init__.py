"""From rows to rows."""

"""Who the nodes are and how they find, prove and reach each other."""

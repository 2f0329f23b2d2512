//! Scripts that once went wrong, as short as they became.

//! `Set-Cookie`: the other direction.

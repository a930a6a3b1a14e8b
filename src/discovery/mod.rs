//! Discovery: which endpoints are there right now?

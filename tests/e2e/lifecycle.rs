//! Start and stop of the real process.

//! `outrigger schema`: the configuration's JSON schema.

use super::{Failure, print};
use crate::config;

pub(super) fn run() -> Result<(), Failure> {
    print(&format!("{:#}\n", config::schema()))
}

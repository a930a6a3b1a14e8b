//! The shell of a service's fallback: who is being answered by which step, and the files that fixed answers come
//! from.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    net::tls::FileError,
    policy::fallback::{Body, Step, With},
};

/// The steps of a service's fallback, with what each needs at run time.
#[derive(Debug, Default)]
pub struct Fallbacks(Vec<Ready>);

/// One step that can answer.
#[derive(Debug)]
pub struct Ready {
    /// What it does.
    pub step: Step,
    /// The body of a fixed answer.
    pub body: Bytes,
    answering: Arc<AtomicU32>,
}

/// A place among those that a step is answering; free again when it drops.
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

impl Fallbacks {
    /// Reads what the steps need.
    ///
    /// # Errors
    /// A file that one of them answers with cannot be read.
    pub(super) fn new(steps: &[Step]) -> Result<Self, FileError> {
        let ready = |step: &Step| {
            let body = match &step.with {
                With::Respond(respond) => match &respond.body {
                    Body::Bytes(bytes) => bytes.clone(),
                    Body::File(path) => fs::read(path)
                        .map_err(|error| FileError(format!("fallback.respond.file: {}: {error}", path.display())))?
                        .into(),
                },
                With::LastGood(_) | With::Service(_) => Bytes::new(),
            };
            Ok(Ready { step: step.clone(), body, answering: Arc::default() })
        };
        steps.iter().map(ready).collect::<Result<_, _>>().map(Self)
    }

    /// The steps, in their order.
    pub fn steps(&self) -> &[Ready] {
        &self.0
    }
}

impl Ready {
    /// A place among those that it is answering, if there is one.
    pub fn enter(&self) -> Option<Place> {
        let place = Place(self.answering.clone());
        (self.answering.fetch_add(1, Ordering::Relaxed) < self.step.max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fallback::LastGood;

    #[test]
    fn places_come_back() {
        let step = Step { with: With::LastGood(LastGood::default()), on: None, max: 2 };
        let fallbacks = Fallbacks::new(&[step]).unwrap();
        let ready = &fallbacks.steps()[0];
        let (first, second) = (ready.enter().unwrap(), ready.enter().unwrap());
        assert!(ready.enter().is_none() && ready.enter().is_none(), "a refusal takes no place");
        drop(first);
        let third = ready.enter();
        assert!(third.is_some() && ready.enter().is_none());
        drop((second, third));
        assert!(ready.enter().is_some());
    }
}

//! A queue that one may leave from the middle: who has waited longest?
//!
//! First come, first served; joining, being served and giving up all cost the same, however many wait.
//! Places are kept in a slab and chained both ways. A place that falls free is used again, so the memory
//! is that of the longest queue there has been, and those who give up leave nothing behind.
//!
//! It has no bound of its own: its owner knows what may wait.

/// A place in the queue. A ticket names one visit: after it is over, the ticket names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket {
    /// Counts visits, so that later ones compare greater and no two are alike.
    visit: u64,
    /// Where in the slab.
    place: u32,
}

/// Tickets, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    places: Vec<Place>,
    /// The first of the free places, which are chained too.
    free: Option<u32>,
    first: Option<u32>,
    last: Option<u32>,
    waiting: u32,
    visits: u64,
}

#[derive(Debug, Clone)]
enum Place {
    Taken { visit: u64, before: Option<u32>, after: Option<u32> },
    Free { next: Option<u32> },
}

impl Queue {
    /// How many wait.
    pub(super) fn len(&self) -> u32 {
        self.waiting
    }

    /// Joins at the end.
    pub(super) fn join(&mut self) -> Ticket {
        let visit = self.visits;
        self.visits += 1;
        let taken = Place::Taken { visit, before: self.last, after: None };
        let place = match self.free {
            Some(place) => {
                if let Place::Free { next } = self.places[place as usize] {
                    self.free = next;
                }
                self.places[place as usize] = taken;
                place
            }
            None => {
                self.places.push(taken);
                (self.places.len() - 1) as u32
            }
        };
        self.chain(self.last, Some(place));
        self.last = Some(place);
        self.waiting += 1;
        Ticket { visit, place }
    }

    /// Serves who has waited longest.
    pub(super) fn serve(&mut self) -> Option<Ticket> {
        let place = self.first?;
        let Place::Taken { visit, .. } = self.places[place as usize] else { return None };
        self.leave(Ticket { visit, place }).then_some(Ticket { visit, place })
    }

    /// Who joined last.
    pub(super) fn last(&self) -> Option<Ticket> {
        let place = self.last?;
        let Place::Taken { visit, .. } = self.places[place as usize] else { return None };
        Some(Ticket { visit, place })
    }

    /// Takes somebody out, wherever they stand; false if they do not wait (any more).
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(&Place::Taken { visit, before, after }) = self.places.get(ticket.place as usize) else {
            return false;
        };
        if visit != ticket.visit {
            return false;
        }
        self.chain(before, after);
        if after.is_none() {
            self.last = before;
        }
        self.places[ticket.place as usize] = Place::Free { next: self.free };
        self.free = Some(ticket.place);
        self.waiting -= 1;
        true
    }

    /// Makes `right` follow `left`; without a `left` it is the first.
    fn chain(&mut self, left: Option<u32>, right: Option<u32>) {
        match left {
            None => self.first = right,
            Some(left) => {
                if let Place::Taken { after, .. } = &mut self.places[left as usize] {
                    *after = right;
                }
            }
        }
        if let Some(right) = right
            && let Place::Taken { before, .. } = &mut self.places[right as usize]
        {
            *before = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Random;

    #[test]
    fn a_random_life_matches_a_list() {
        let mut random = Random::seeded(5);
        let mut queue = Queue::default();
        let mut model: Vec<Ticket> = Vec::new();
        let mut gone: Vec<Ticket> = Vec::new();
        for _ in 0..50_000 {
            match random.below(4) {
                0 | 1 if model.len() < 40 => model.push(queue.join()),
                2 => {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(queue.serve(), expected);
                    gone.extend(expected);
                }
                _ if !model.is_empty() => {
                    let ticket = model.remove(random.below(model.len() as u32) as usize);
                    assert!(queue.leave(ticket));
                    gone.push(ticket);
                }
                _ => {}
            }
            assert_eq!(queue.len() as usize, model.len());
            if let Some(&ticket) = gone.get(random.below(gone.len() as u32) as usize) {
                assert!(!queue.leave(ticket), "who has left cannot leave again");
            }
        }
        assert!(queue.places.len() <= 40, "{} places for 40 waiters", queue.places.len());
        assert!(model.is_sorted(), "later visits compare greater");
    }
}

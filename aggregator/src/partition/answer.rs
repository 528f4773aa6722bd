use turnpike_domain::problem::Problem;
use turnpike_domain::record::Position;

use super::Owner;
use super::command::Reply;

/// An answer on its way out.
pub(super) struct Answer<T> {
    pub(super) reply: Reply<T>,
    pub(super) result: Result<T, Problem>,
    /// The last record that it rests on.
    pub(super) rests_on: Option<Position>,
}

impl<T> Answer<T> {
    fn send(self) {
        // Whoever asked may have gone away.
        drop(self.reply.send(self.result));
    }
}

impl Owner {
    /// Sends answers: at once where all is durable that they rest on, else those of the run together, once it is.
    pub(super) fn answer<T: Send + 'static>(&self, answers: Vec<Answer<T>>) {
        let log = &self.shared.log;
        let durable = log.durable();
        let mut waiting = Vec::with_capacity(answers.len());
        let mut last = Position::START;
        for answer in answers {
            match answer.rests_on.filter(|position| *position >= durable) {
                Some(position) => {
                    last = last.max(position);
                    waiting.push(answer);
                }
                None => answer.send(),
            }
        }
        if waiting.is_empty() {
            return;
        }
        let told = move |durable: Result<(), _>| {
            for mut answer in waiting {
                if let Err(lost) = &durable {
                    answer.result = Err(Problem::from(Clone::clone(lost)));
                }
                answer.send();
            }
        };
        log.when_durable(Position(last.0 + 1), Box::new(told));
    }
}

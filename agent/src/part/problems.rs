//! Problems of a part, and what they mean for the VM.

mod code;
#[cfg(test)]
mod followed;

pub use code::Code;

/// The problems of one part, or of all of them, at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<Problem>);

/// One problem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The problem's kind.
    pub code: Code,
    /// True when it keeps the VM from serving.
    pub blocks: bool,
    /// The problem, with its remedy where there is one that depends on it.
    pub text: String,
}

impl Problems {
    /// The same with problems that keep the VM from serving.
    #[must_use]
    pub fn blocking(self, code: Code, texts: impl IntoIterator<Item = String>) -> Self {
        self.and(code, true, texts)
    }

    /// The same with problems that the VM serves on with.
    #[must_use]
    pub fn amiss(self, code: Code, texts: impl IntoIterator<Item = String>) -> Self {
        self.and(code, false, texts)
    }

    /// The same, and where `is_so` the VM serves on with all of them.
    #[must_use]
    pub fn amiss_where(mut self, is_so: bool) -> Self {
        for problem in &mut self.0 {
            problem.blocks &= !is_so;
        }
        self
    }

    fn and(mut self, code: Code, blocks: bool, texts: impl IntoIterator<Item = String>) -> Self {
        let problem = |text| Problem { code, blocks, text };
        self.0.extend(texts.into_iter().map(problem));
        self
    }

    /// All of several parts.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The cause first, then what keeps the VM from serving, then what is merely amiss, each in the order of causes.
    pub fn in_order(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|problem| (!problem.blocks, problem.code));
        let mut cause = 0;
        while let Some(effect) = self.0.get(cause) {
            let explains = |problem: &Problem| problem.code.explains(effect.code);
            match self.0.iter().position(explains) {
                Some(earlier) => cause = earlier,
                None => break,
            }
        }
        if let Some(first) = self.0.get_mut(..=cause) {
            first.rotate_right(1);
        }
        self.0
    }

    /// The texts: of what keeps the VM from serving, and of what is merely amiss.
    #[cfg(test)]
    pub(crate) fn texts(&self) -> (Vec<&str>, Vec<&str>) {
        let of = |blocks| {
            let those = self.0.iter().filter(move |problem| problem.blocks == blocks);
            those.map(|problem| problem.text.as_str()).collect()
        };
        (of(true), of(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(problems: Problems) -> Vec<Code> {
        problems.in_order().into_iter().map(|problem| problem.code).collect()
    }

    fn text() -> [String; 1] {
        [String::new()]
    }

    #[test]
    fn istiod_that_is_away_is_the_cause_of_what_it_was_to_give() {
        let problems = Problems::default()
            .amiss(Code::HostsFile, text())
            .blocking(Code::NamesMissing, text())
            .amiss(Code::IstiodUnreachable, text())
            .blocking(Code::EnvoyUnconfigured, text());
        let expected = [
            Code::IstiodUnreachable,
            Code::EnvoyUnconfigured,
            Code::NamesMissing,
            Code::HostsFile,
        ];
        assert_eq!(told(problems), expected);
    }

    #[test]
    fn refused_listener_is_the_cause_of_an_envoy_that_serves_nothing() {
        let problems = Problems::default()
            .amiss(Code::EnvoyRefused, text())
            .blocking(Code::EnvoyUnconfigured, text())
            .blocking(Code::RulesWaiting, text());
        let expected = [Code::EnvoyRefused, Code::EnvoyUnconfigured, Code::RulesWaiting];
        assert_eq!(told(problems), expected);
    }

    #[test]
    fn istiod_that_is_away_is_no_cause_of_a_dead_envoy() {
        let problems = Problems::default()
            .amiss(Code::IstiodUnreachable, text())
            .blocking(Code::EnvoyDown, text())
            .blocking(Code::RulesWaiting, text());
        let expected = [Code::EnvoyDown, Code::RulesWaiting, Code::IstiodUnreachable];
        assert_eq!(told(problems), expected);
    }

    #[test]
    fn envoy_that_is_not_connected_is_the_cause_of_an_istiod_that_was_not_asked() {
        let problems = Problems::default()
            .blocking(Code::IstiodPending, text())
            .amiss(Code::EnvoyStream, text());
        assert_eq!(told(problems), [Code::EnvoyStream, Code::IstiodPending]);
    }

    #[test]
    fn cause_is_followed_to_its_end_and_a_vm_without_problems_has_none() {
        let problems = Problems::default()
            .blocking(Code::ContainerWaiting, text())
            .blocking(Code::RulesWaiting, text())
            .blocking(Code::EnvoyDown, text());
        assert_eq!(told(problems)[0], Code::EnvoyDown);
        assert_eq!(told(Problems::default()), []);
    }
}

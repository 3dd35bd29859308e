//! Which cases a command is about.

use super::Stop;
use super::near::did_you_mean;
use super::options::{Level, SelectionOptions};
use crate::case::{self, Case, Flag, catalogue};
use crate::golden::glob_match;

/// The most elements of a quick case.
const QUICK: usize = 512;

impl SelectionOptions {
    /// Checks the options against every case that they could mean.
    ///
    /// # Errors
    /// Wrong usage if a glob matches none of them, or a level is for properties, of which there are none here.
    pub fn check<'a>(&self, cases: impl Iterator<Item = &'a Case> + Clone) -> Result<(), Stop> {
        if self.level == Level::Forever {
            let message = "--level forever is for check, which tries properties on new values for as long as it may; \
                           the cases here do not change: use quick or full";
            return Err(Stop::usage(message));
        }
        self.check_with(cases, &[])
    }

    /// The same where the options may mean properties too, `properties` by name.
    ///
    /// # Errors
    /// Wrong usage if a glob matches neither.
    pub fn check_with<'a>(
        &self,
        cases: impl Iterator<Item = &'a Case> + Clone,
        properties: &[(String, Vec<Flag>)],
    ) -> Result<(), Stop> {
        for (option, globs) in [("--only", &self.only), ("--skip", &self.skip)] {
            for glob in globs {
                let mut names = cases
                    .clone()
                    .map(|case| case.name.as_str())
                    .chain(properties.iter().map(|property| property.0.as_str()));
                if !names.any(|name| glob_match(glob, name)) {
                    let properties = properties.iter().map(|property| property.0.as_str());
                    let near = did_you_mean(glob, cases.clone().map(|case| case.name.as_str()).chain(properties));
                    return Err(Stop::usage(format!("{option} {glob:?} matches no case{near} (normative list cases)")));
                }
            }
        }
        let property_flags =
            |name: &str| properties.iter().any(|property| property.1.iter().any(|flag| flag.name() == name));
        let flagged = |name: &str| cases.clone().any(|case| carries(case, name)) || property_flags(name);
        if let Some(flag) = self.flag.iter().find(|name| !flagged(name)) {
            return Err(Stop::usage(format!("--flag {flag}: no case carries it")));
        }
        Ok(())
    }

    /// Whether a property is meant, by the name of its verdict and its flags.
    pub fn picks_property(&self, name: &str, flags: &[Flag]) -> bool {
        let matches = |globs: &[String]| globs.iter().any(|glob| glob_match(glob, name));
        (self.only.is_empty() || matches(&self.only))
            && !matches(&self.skip)
            && (self.flag.is_empty() || flags.iter().any(|flag| self.flag.iter().any(|name| name == flag.name())))
            && self.shard.is_none_or(|shard| hash(name) % shard.parts == shard.index)
    }

    /// What there is to choose from: the catalogue, with the cases that are too large to be recorded unless the quick are meant.
    pub fn catalogue<'a>(&self) -> impl Iterator<Item = &'a Case> + Clone + use<'a> {
        let unrecorded = if self.level == Level::Quick { &[] } else { catalogue::unrecorded() };
        catalogue::cases().iter().chain(unrecorded)
    }

    /// Whether a case is meant.
    pub fn picks(&self, case: &Case) -> bool {
        self.picks_property(&case.name, &case.flags)
            && (self.level != Level::Quick || is_quick(case))
            && self.dialect.as_ref().is_none_or(|dialect| has_dialect(case, dialect))
    }

    /// The cases that are meant.
    ///
    /// # Errors
    /// As [`SelectionOptions::check`], and wrong usage if the options leave no case (a shard may be empty).
    pub fn pick<'a>(&self, cases: impl Iterator<Item = &'a Case> + Clone) -> Result<Vec<&'a Case>, Stop> {
        self.check(cases.clone())?;
        let picked: Vec<&Case> = cases.filter(|case| self.picks(case)).collect();
        if picked.is_empty() && self.shard.is_none() {
            return Err(Stop::usage("no case is left: --only, --skip, --flag and --level exclude each other"));
        }
        Ok(picked)
    }

    /// The first option that leaves cases out, if any does.
    pub fn restricts(&self) -> Option<&'static str> {
        [
            (!self.only.is_empty(), "--only"),
            (!self.skip.is_empty(), "--skip"),
            (!self.flag.is_empty(), "--flag"),
            (self.shard.is_some(), "--shard"),
            (self.level != Level::Full, "--level"),
            (self.dialect.is_some(), "--dialect"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }
}

fn carries(case: &Case, flag: &str) -> bool {
    Flag::from_name(flag).is_some_and(|flag| case.flags.contains(&flag))
}

fn is_quick(case: &Case) -> bool {
    let elements = case.steps.iter().flat_map(|step| step.tensors.values()).map(|tensor| tensor.len());
    case.level == case::Level::Required && elements.sum::<usize>() <= QUICK
}

fn has_dialect(case: &Case, dialect: &str) -> bool {
    let operation = serde_json::to_value(case.operation()).expect("an operation is JSON");
    operation.get("dialect").and_then(|name| name.as_str()).unwrap_or("pytorch") == dialect
}

/// FNV-1a (Fowler, Noll, Vo), its halves folded together for the sake of the remainder.
fn hash(name: &str) -> u64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::super::options::Shard;
    use super::*;
    use crate::case::catalogue;

    #[test]
    fn the_largest_cases_are_there_unless_the_quick_are_meant() {
        let grids = |level| {
            let options = SelectionOptions { level, ..Default::default() };
            options.catalogue().filter(|case| case.flags.contains(&Flag::Grid)).count()
        };
        assert!(grids(Level::Full) >= 6 && grids(Level::Forever) >= 6);
        assert_eq!(grids(Level::Quick), 0);
    }

    fn picked(options: &SelectionOptions) -> Vec<&'static str> {
        options.pick(catalogue::cases().iter()).unwrap().into_iter().map(|case| case.name.as_str()).collect()
    }

    #[test]
    fn shards_are_a_partition_and_of_like_size() {
        let mut all: Vec<&str> = Vec::new();
        for index in 0..4 {
            let part = picked(&SelectionOptions { shard: Some(Shard { index, parts: 4 }), ..Default::default() });
            assert!(part.len() * 5 > catalogue::cases().len(), "{}", part.len());
            all.extend(part);
        }
        let mut names = picked(&SelectionOptions::default());
        all.sort_unstable();
        names.sort_unstable();
        assert_eq!(all, names);
    }

    #[test]
    fn globs_and_flags_narrow_and_what_matches_nothing_is_wrong_usage() {
        let options = |only: &[&str], skip: &[&str], flag: &[&str]| {
            let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            SelectionOptions { only: own(only), skip: own(skip), flag: own(flag), ..Default::default() }
        };
        let refused = picked(&options(&["batch_norm-*", "group_norm-*"], &["*-f32-*"], &["refusal"]));
        assert!(refused.iter().all(|name| !name.contains("f32") && !name.starts_with("layer_norm")));
        assert!(refused.iter().any(|name| name.starts_with("group_norm")));
        let stop = options(&["batch_nrm-f32-nan"], &[], &[]).pick(catalogue::cases().iter()).unwrap_err();
        assert_eq!(stop.status, crate::report::Status::Usage);
        assert!(stop.message.contains("did you mean batch_norm-f32-nan"), "{}", stop.message);
        assert!(options(&["layer_norm-*"], &["*"], &[]).pick(catalogue::cases().iter()).is_err());
        assert!(options(&[], &["nonesuch*"], &[]).pick(catalogue::cases().iter()).is_err());
    }

    #[test]
    fn quick_cases_are_small_and_required() {
        let quick = picked(&SelectionOptions { level: Level::Quick, ..Default::default() });
        assert!(!quick.contains(&"layer_norm-f32-large-4096") && !quick.contains(&"layer_norm-f32-range-1e30"));
        assert!(quick.contains(&"layer_norm-f32-size-4") && quick.len() * 2 > catalogue::cases().len());
    }
}

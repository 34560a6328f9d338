//! The `[[form]]` tables: how messages travel.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bus_proto::Endpoint;

use super::error::PolicyError;
use super::read::Table;
use super::{destinations, types};
use crate::form::{Destinations, FormRule, MAX_RECIPIENTS, Sealing};
use crate::rule::Inboxes;

const KEYS: &[&str] = &["types", "to", "seal", "recipients", "compress"];

/// Reads every table, and refuses them if they name more recipients together than a message can have.
pub(super) fn forms(tables: &[Table<'_>]) -> Result<Vec<FormRule>, PolicyError> {
    let rules: Vec<_> = tables.iter().map(form).collect::<Result<_, _>>()?;
    match overfull(&rules).and_then(|(place, count)| Some((tables.get(place)?, count))) {
        None => Ok(rules),
        Some((table, count)) => Err(PolicyError::TooManyRecipients { at: table.at(), count, max: MAX_RECIPIENTS }),
    }
}

fn form(table: &Table<'_>) -> Result<FormRule, PolicyError> {
    table.allow_only(KEYS)?;
    let (types, to) = (types(table)?, destinations(table)?);
    let sealing = match table.text("seal")? {
        None => None,
        Some(text) => match text.value {
            "off" => Some(Sealing::Off),
            "on" => Some(Sealing::On),
            "required" => Some(Sealing::Required),
            _ => return Err(text.wrong("it must be \"off\", \"on\" or \"required\"")),
        },
    };
    if !matches!(sealing, Some(Sealing::On | Sealing::Required)) {
        table.forbid("recipients", "only a form whose `seal` is \"on\" or \"required\" has recipients")?;
    }
    let compress = table.boolean("compress")?;
    if sealing.is_none() && compress.is_none() {
        return Err(PolicyError::EmptyForm { at: table.at() });
    }
    Ok(FormRule { types, to, sealing, recipients: Vec::new(), compress }.with_recipients(recipients(table)?))
}

fn recipients(table: &Table<'_>) -> Result<Vec<Endpoint>, PolicyError> {
    const RULE: &str = "it must be a list of \"<role>/<component>\" that is not empty";
    match table.texts("recipients", RULE)? {
        Some(texts) => texts.iter().map(|text| text.parse(str::parse)).collect(),
        None => table.forbid("recipients", RULE).map(|()| Vec::new()),
    }
}

/// The place of the last rule that matches a message with too many recipients, and how many it has, if there is one.
///
/// Of the rules that match a message, one has the narrowest destinations. So it is enough to ask about the destinations of
/// every rule, with every set of rules that match one type: each that a rule names, and one that none names.
fn overfull(rules: &[FormRule]) -> Option<(usize, usize)> {
    let sealing = || rules.iter().enumerate().filter(|(_, rule)| !rule.recipients().is_empty());
    let named: BTreeSet<_> = sealing().flat_map(|(_, rule)| rule.recipients()).collect();
    // Nothing more is to be asked of nearly every policy. One more may be the owner of an inbox.
    if named.len() < MAX_RECIPIENTS {
        return None;
    }
    let types: BTreeSet<_> = sealing().flat_map(|(_, rule)| rule.types.iter()).chain([None]).collect();
    let of_type = |message_type| {
        let matching = sealing().filter(|(_, rule)| rule.types.contains(message_type));
        matching.map(|(place, _)| place).collect::<Vec<_>>()
    };
    let sets: BTreeSet<_> = types.into_iter().map(of_type).collect();
    sets.iter().find_map(|set| {
        let set = || set.iter().filter_map(|place| Some((*place, rules.get(*place)?)));
        let narrowest: BTreeSet<_> = set().map(|(_, rule)| &rule.to).collect();
        narrowest.into_iter().find_map(|to| {
            let matching = || set().filter(|(_, rule)| covers(&rule.to, to));
            let recipients: BTreeSet<_> = matching().flat_map(|(_, rule)| rule.recipients()).collect();
            let count = recipients.len() + usize::from(!owner_is_among(to, &recipients));
            let last = matching().map(|(place, _)| place).max()?;
            (count > MAX_RECIPIENTS).then_some((last, count))
        })
    })
}

/// Whether every destination of `narrow` is one of `wide`.
fn covers(wide: &Destinations, narrow: &Destinations) -> bool {
    match (wide, narrow) {
        (Destinations::Events, Destinations::Events) => true,
        (Destinations::Inboxes(wide), Destinations::Inboxes(narrow)) => match (wide, narrow) {
            (Inboxes::Any, _) => true,
            (Inboxes::OfRole(role), Inboxes::Of(owner)) => *role == owner.role,
            _ => wide == narrow,
        },
        _ => false,
    }
}

/// Whether whoever receives what goes there is a recipient already. Events have no owner, and a rule for several inboxes
/// is about owners that are none.
fn owner_is_among(to: &Destinations, recipients: &BTreeSet<&Endpoint>) -> bool {
    match to {
        Destinations::Events => true,
        Destinations::Inboxes(Inboxes::Of(owner)) => recipients.contains(owner),
        Destinations::Inboxes(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};
    use std::prelude::rust_2024::*;

    use bus_proto::MessageType;

    use super::*;
    use crate::policy::Policy;
    use crate::rule::Types;
    use crate::toml::MAX_FORMS;

    const FORM: &str = "types = [\"Alert\"]\nto = \"events\"\nseal = \"on\"";

    fn error(text: &str) -> String {
        Policy::from_toml(text).unwrap_err().to_string()
    }

    /// A whole policy with this one form, whose first line is line 3.
    fn with_form(form: &str) -> String {
        format!("version = 1\n[[form]]\n{form}\n")
    }

    /// One form with the recipients `<role>/c<number>`, numbered from `first`.
    fn sealed_for(types: &str, to: &str, first: usize, count: usize) -> String {
        let recipients: Vec<_> = (first..first + count).map(|number| format!("core/c{number}")).collect();
        format!("[[form]]\ntypes = {types}\nto = {to:?}\nseal = \"on\"\nrecipients = {recipients:?}\n")
    }

    #[test]
    fn every_form_of_a_form_is_read() {
        let text = r#"
            version = 1
            [[form]]
            types = ["Alert", "x-scan"]
            to = "events"
            seal = "required"
            recipients = ["core/core-02", "core/core-01", "core/core-02"]
            compress = true
            [[form]]
            types = "*"
            to = "inbox:agent/*"
            seal = "off"
            [[form]]
            types = ["Command"]
            to = "inbox:*/*"
            compress = false
            [[form]]
            types = ["Telemetry"]
            to = "events"
            seal = "on"
        "#;
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let only = |name: &str| Types::only([name.parse().unwrap()]);
        let alerts = Types::only([MessageType::Alert, "x-scan".parse().unwrap()]);
        let agents = Destinations::Inboxes(Inboxes::OfRole("agent".parse().unwrap()));
        let expected = [
            FormRule::seal(alerts, Destinations::Events, Sealing::Required)
                .with_recipients([endpoint("core/core-01"), endpoint("core/core-02")])
                .with_compression(true),
            FormRule::seal(Types::EVERY, agents, Sealing::Off),
            FormRule::compress(only("Command"), Destinations::Inboxes(Inboxes::Any), false),
            FormRule::seal(only("Telemetry"), Destinations::Events, Sealing::On),
        ];
        assert_eq!(Policy::from_toml(text), Ok(Policy::new([]).with_forms(expected)));
    }

    #[test]
    fn the_examples_for_users_are_read() {
        let default = include_str!("../../policies/default.toml");
        let comment: Vec<_> = default.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
        let readme = include_str!("../../README.md");
        let block = |number| readme.split("```toml\n").nth(number).and_then(|rest| rest.split("```").next()).unwrap();
        let examples =
            [(comment.join("\n"), [1, 1, 1]), (block(1).to_string(), [2, 0, 0]), (block(2).to_string(), [0, 1, 1])];
        for (example, counts) in examples {
            let policy = Policy::from_toml(&format!("{default}\n{example}")).unwrap();
            let (deliveries, durables) = (policy.deliveries().len(), policy.durables().len());
            assert_eq!([policy.forms().len(), deliveries, durables], counts, "{example}");
        }
    }

    #[test]
    fn a_bad_value_is_reported_with_its_place_and_what_is_allowed() {
        let cases = [
            ("seal = \"always\"", "column 8: `seal`: found \"always\": it must be \"off\", \"on\" or \"required\""),
            ("seal = true", "column 8: `seal`: found true: it must be a text in quotes"),
            ("compress = \"yes\"", "column 12: `compress`: found \"yes\": it must be true or false"),
            ("recipients = []", "column 14: `recipients`: found []: it must be a list of \"<role>/<component>\""),
            ("recipients = \"core/c1\"", "column 14: `recipients`: found \"core/c1\": it must be a list of"),
            ("recipients = [1]", "column 15: `recipients`: found 1: it must be a list of"),
            ("recipients = [\"core/c1\", \"core/*\"]", "column 26: `recipients`: component `*` is malformed"),
            ("recipients = [\"core\"]", "column 15: `recipients`: component address `core` is malformed"),
            ("to = \"inbox\"", "column 6: `to`: found \"inbox\": it must be \"events\", \"inbox:*/*\""),
            ("types = \"Alert\"", "column 9: `types`: found \"Alert\": it must be a list of message types"),
            (
                "role = \"agent\"",
                "column 1: unknown key `role`: the keys here are types, to, seal, recipients, compress",
            ),
        ];
        for (line, expected) in cases {
            let key = line.split(' ').next().unwrap();
            let others: Vec<_> = FORM.lines().filter(|line| !line.starts_with(key)).collect();
            let error = error(&with_form(&format!("{}\n{line}", others.join("\n"))));
            assert!(error.starts_with(&format!("line {}, {expected}", 3 + others.len())), "{error}");
        }
    }

    #[test]
    fn a_missing_key_is_reported_with_the_place_of_its_form() {
        for key in ["types", "to"] {
            let lines: Vec<_> = FORM.lines().filter(|line| !line.starts_with(key)).collect();
            let text = format!("{}[[form]]\n{}", with_form(FORM), lines.join("\n"));
            assert_eq!(error(&text), format!("line 6, column 1: the key `{key}` is missing here"));
        }
    }

    #[test]
    fn a_form_that_says_nothing_is_refused() {
        let nothing = with_form("types = \"*\"\nto = \"events\"");
        assert_eq!(error(&nothing), "line 2, column 1: a form must have `seal`, `compress` or both");
    }

    #[test]
    fn recipients_of_what_is_not_sealed_are_refused() {
        for says in ["seal = \"off\"", "compress = true"] {
            let text = with_form(&format!("types = \"*\"\nto = \"events\"\n{says}\nrecipients = [\"core/c1\"]"));
            assert_eq!(
                error(&text),
                "line 6, column 14: `recipients`: found [\"core/c1\"]: only a form whose `seal` is \"on\" or \"required\" has \
                 recipients"
            );
        }
    }

    #[test]
    fn forms_beyond_the_bound_are_refused() {
        let empty = |count: usize| format!("version = 1\nform = [{}]", "{},".repeat(count));
        assert!(error(&empty(MAX_FORMS)).contains("`types` is missing"));
        assert!(error(&empty(MAX_FORMS + 1)).starts_with("the policy has 1001 forms, at most 1000 are allowed"));
    }

    #[test]
    fn more_recipients_than_a_message_can_have_are_refused() {
        // What the forms are, and how many recipients they have together, where that is too many.
        let cases = [
            (vec![("'*'", "events", 0, 256)], None),
            (vec![("'*'", "events", 0, 257)], Some(257)),
            // Recipients that several forms name count once.
            (vec![("'*'", "events", 0, 200), ("['Alert']", "events", 100, 156)], None),
            (vec![("'*'", "events", 0, 200), ("['Alert']", "events", 200, 57)], Some(257)),
            (vec![("['x-a', 'x-b']", "events", 0, 200), ("['x-b', 'x-c']", "events", 200, 57)], Some(257)),
            // No message matches both forms.
            (vec![("['Error']", "events", 0, 200), ("['Alert']", "events", 200, 200)], None),
            (vec![("'*'", "events", 0, 200), ("'*'", "inbox:*/*", 200, 200)], None),
            (vec![("'*'", "inbox:agent/*", 0, 200), ("'*'", "inbox:core/*", 200, 200)], None),
            (vec![("'*'", "inbox:agent/a1", 0, 200), ("'*'", "inbox:agent/a2", 200, 200)], None),
            // Some do, whichever form is the narrower one.
            (vec![("['Error']", "inbox:*/*", 0, 200), ("'*'", "inbox:agent/*", 200, 56)], Some(257)),
            (vec![("['Error']", "inbox:agent/a1", 0, 200), ("'*'", "inbox:agent/*", 200, 56)], Some(257)),
            (vec![("['Error']", "inbox:*/*", 0, 200), ("'*'", "inbox:agent/a1", 200, 55)], None),
            // The owner of the inbox is a recipient as well, and counts once.
            (vec![("'*'", "inbox:core/*", 0, 256)], Some(257)),
            (vec![("'*'", "inbox:core/c7", 0, 256)], None),
            (vec![("'*'", "inbox:core/c256", 0, 256)], Some(257)),
        ];
        for (forms, count) in cases {
            let text: String =
                forms.iter().map(|(types, to, first, count)| sealed_for(types, to, *first, *count)).collect();
            let read = Policy::from_toml(&format!("version = 1\n{text}"));
            let at = crate::toml::Position { line: 2 + 5 * (forms.len() - 1), column: 1 };
            let expected = count.map(|count| PolicyError::TooManyRecipients { at, count, max: MAX_RECIPIENTS });
            assert_eq!(read.err(), expected, "{forms:?}");
        }
    }

    #[test]
    fn many_forms_for_many_recipients_are_read() {
        let custom: Vec<_> = (0..10_000).map(|number| format!("x-{number}")).collect();
        let elsewhere = sealed_for("['Error']", "inbox:core/*", 0, 255);
        let of_many_types = sealed_for(&format!("{custom:?}"), "events", 0, 100);
        let events = sealed_for("'*'", "events", 100, 60).repeat(MAX_FORMS / 2);
        let inbox = |number: usize| sealed_for("'*'", &format!("inbox:agent/a{number}"), number, 3);
        let inboxes: String = (0..MAX_FORMS / 2 - 2).map(inbox).collect();
        let policy = Policy::from_toml(&format!("version = 1\n{elsewhere}{of_many_types}{events}{inboxes}")).unwrap();
        assert_eq!(policy.forms().len(), MAX_FORMS);
    }
}

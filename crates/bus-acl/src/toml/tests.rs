use super::*;
use alloc::format;
use alloc::string::String;
use std::prelude::rust_2024::*;

/// What a broken policy is answered with.
fn error(text: &str) -> String {
    Policy::from_toml(text).unwrap_err().to_string()
}

/// A whole policy with this one rule, whose first line is line 3.
fn with_rule(rule: &str) -> String {
    format!("version = 1\n[[rule]]\n{rule}\n")
}

const RULE: &str = "role = \"agent\"\naction = \"publish\"\ntypes = [\"Alert\"]\nto = \"events\"";

#[test]
fn the_default_policy_and_its_file_are_equal() {
    let file = include_str!("../../policies/default.toml");
    assert_eq!(Policy::from_toml(file), Ok(Policy::default()));
}

#[test]
fn a_policy_without_rules_is_read() {
    assert_eq!(Policy::from_toml("version = 1"), Ok(Policy::new([])));
}

#[test]
fn the_effect_is_allow_unless_given() {
    let explicit = format!("{RULE}\neffect = \"allow\"");
    assert_eq!(Policy::from_toml(&with_rule(RULE)), Policy::from_toml(&with_rule(&explicit)));
}

#[test]
fn every_form_of_a_rule_is_read() {
    let role = |name| Role::new(name).unwrap();
    let everything = Types::EVERY;
    let text = r#"
        version = 1
        [[rule]]
        effect = "deny"
        role = "*"
        component = "a1"
        trust_domain = "other.example"
        action = "publish"
        types = "*"
        to = "inbox:core/*"
        [[rule]]
        role = "core"
        action = "publish"
        types = ["CommandRequest", "x-scan", "command"]
        to = "inbox:agent/a1"
        [[rule]]
        role = "core"
        action = "subscribe"
        types = "*"
        from = "inbox"
    "#;
    let who = Who::every_role()
        .component(ComponentId::new("a1").unwrap())
        .trust_domain(TrustDomain::new("other.example").unwrap());
    let command = Types::only([MessageType::Command, "x-scan".parse().unwrap()]);
    let to_a1 = Right::PublishInbox(Inboxes::Of("agent/a1".parse().unwrap()));
    let expected = Policy::new([
        Rule::deny(who, Right::PublishInbox(Inboxes::OfRole(role("core"))), everything.clone()),
        Rule::allow(Who::role(&role("core")), to_a1, command),
        Rule::allow(Who::role(&role("core")), Right::SubscribeOwnInbox, everything),
    ]);
    assert_eq!(Policy::from_toml(text), Ok(expected));
}

#[test]
fn a_syntax_error_is_reported_with_its_place() {
    assert!(error("version = 1\n[[rule]]\nrole = agent\n").starts_with("line 3, column 8: not valid TOML: "));
}

#[test]
fn a_duplicate_key_is_reported_with_its_place() {
    assert!(error("version = 1\nversion = 1\n").starts_with("line 2, column 1: not valid TOML: duplicate key"));
}

#[test]
fn the_version_is_required() {
    assert_eq!(error("rule = []"), "line 1, column 1: the key `version` is missing here");
}

#[test]
fn another_version_is_refused() {
    for version in ["2", "\"1\"", "1.0", "true", "[]"] {
        let expected =
            format!("line 2, column 11: `version`: found {version}: it must be 1, the version that this program reads");
        assert_eq!(error(&format!("\nversion = {version}")), expected);
    }
}

#[test]
fn an_unknown_key_is_reported_with_its_place_and_the_keys_that_exist() {
    assert_eq!(
        error("version = 1\nrules = []"),
        "line 2, column 1: unknown key `rules`: the keys here are version, rule, form, delivery, durable"
    );
    assert_eq!(
        error(&with_rule(&format!("{RULE}\n  colour = 1\n  age = 1"))),
        "line 7, column 3: unknown key `colour`: the keys here are effect, role, component, trust_domain, action, types, \
         to, from"
    );
}

#[test]
fn a_missing_key_is_reported_with_the_place_of_its_rule() {
    for key in ["role", "action", "types", "to"] {
        let lines: Vec<_> = RULE.lines().filter(|line| !line.starts_with(key)).collect();
        let text = format!("{}\n# The second rule.\n[[rule]]\n{}", with_rule(RULE), lines.join("\n"));
        assert_eq!(error(&text), format!("line 9, column 1: the key `{key}` is missing here"));
    }
}

#[test]
fn a_bad_value_is_reported_with_its_place_and_what_is_allowed() {
    let cases = [
        ("effect = \"permit\"", "column 10: `effect`: found \"permit\": it must be \"allow\" or \"deny\""),
        (
            "role = \"Agent\"",
            "column 8: `role`: role `Agent` is malformed: it must be 1 to 63 of a-z, 0-9 and inner `-`",
        ),
        ("role = \"\"", "column 8: `role`: role is empty"),
        ("role = 1", "column 8: `role`: found 1: it must be a text in quotes"),
        ("component = \"*\"", "column 13: `component`: component `*` is malformed"),
        ("trust_domain = \"A B\"", "column 16: `trust_domain`: trust domain `A B` is malformed"),
        ("action = \"read\"", "column 10: `action`: found \"read\": it must be \"publish\" or \"subscribe\""),
        (
            "types = [\"Alert\", \"Alarm\"]",
            "column 19: `types`: `Alarm` is no message type: use Telemetry, Alert, Command,",
        ),
        ("types = [\"x-ä\"]", "column 10: `types`: `x-\\u{e4}` is no message type"),
        ("types = []", "column 9: `types`: found []: it must be a list of message types that is not empty, or \"*\""),
        ("types = [\"*\"]", "column 10: `types`: `*` is no message type"),
        ("types = [[]]", "column 10: `types`: found []: it must be a list of message types"),
        ("types = \"Alert\"", "column 9: `types`: found \"Alert\": it must be a list of message types"),
        ("to = \"inbox\"", "column 6: `to`: found \"inbox\": it must be \"events\", \"inbox:*/*\", \"inbox:<role>/*\""),
        ("to = \"inbox:*/a1\"", "column 6: `to`: role `*` is malformed"),
        ("to = \"inbox:core/>\"", "column 6: `to`: component `>` is malformed"),
        ("to = \"inbox:core\"", "column 6: `to`: component address `core` is malformed: it must be <role>/<component>"),
        ("to = \"inbox:a.b/*\"", "column 6: `to`: role `a.b` is malformed"),
    ];
    for (line, expected) in cases {
        let key = line.split(' ').next().unwrap();
        let others: Vec<_> = RULE.lines().filter(|line| !line.starts_with(key)).collect();
        let text = with_rule(&format!("{}\n{line}", others.join("\n")));
        let line = 3 + others.len();
        let error = error(&text);
        assert!(error.starts_with(&format!("line {line}, {expected}")), "{error}");
    }
}

#[test]
fn a_rule_that_can_never_match_is_refused() {
    let subscribe = "role = \"core\"\naction = \"subscribe\"\ntypes = \"*\"\n";
    assert_eq!(
        error(&with_rule(&format!("{subscribe}from = \"inbox:agent/a1\""))),
        "line 6, column 8: `from`: found \"inbox:agent/a1\": it must be \"events\" or \"inbox\"; a component reads no inbox \
         but its own"
    );
    assert_eq!(
        error(&with_rule(&format!("{subscribe}from = \"events\"\nto = \"events\""))),
        "line 7, column 6: `to`: found \"events\": a rule about `subscribe` says `from`"
    );
    assert_eq!(
        error(&with_rule(&format!("{RULE}\nfrom = \"inbox\""))),
        "line 7, column 8: `from`: found \"inbox\": a rule about `publish` says `to`"
    );
}

#[test]
fn rules_of_another_shape_are_refused() {
    assert!(error("version = 1\nrule = 1").starts_with("line 2, column 8: `rule`: found 1: it must be tables"));
    assert!(error("version = 1\nrule = [1]").starts_with("line 2, column 9: `rule`: found 1: it must be tables"));
    assert!(error("version = 1\n[rule]\nrole = \"a\"").starts_with("line 2, column 1: `rule`: "));
}

#[test]
fn a_text_beyond_the_bounds_is_refused() {
    let long = " ".repeat(MAX_POLICY_LEN + 1);
    assert_eq!(error(&long), "the policy has 1048577 bytes, at most 1048576 are allowed");
    let empty = |count: usize| format!("version = 1\nrule = [{}]", "{},".repeat(count));
    assert!(error(&empty(MAX_RULES)).contains("`role` is missing"));
    assert!(error(&empty(MAX_RULES + 1)).starts_with("the policy has 10001 rules, at most 10000 are allowed"));
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    let text = format!("version = {}", "[".repeat(MAX_POLICY_LEN - 20));
    assert!(error(&text).contains("not valid TOML"));
}

#[test]
fn columns_count_characters() {
    assert!(error("version = 1\n\"ä\" = 1").starts_with("line 2, column 1: unknown key `\\u{e4}`"));
    assert!(error("version = 1\nrule = [{role = \"ää\"}]").starts_with("line 2, column 17: `role`"));
    let text =
        with_rule("types = [\"Alert\"]\naction = \"publish\"\nto = \"events\"\nrole = 'ä'   # ä\ncomponent = 'ä'");
    assert!(error(&text).starts_with("line 6, column 8: `role`"));
}

#[test]
fn an_error_shows_hostile_text_shortened_and_escaped() {
    let hostile = format!("version = 1\n\"\\u001b[31m{}\" = 1", "a".repeat(10_000));
    let error = error(&hostile);
    assert!(!error.contains('\u{1b}'), "{error}");
    assert!(error.len() < 300, "{error}");
}

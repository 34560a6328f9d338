//! What a policy decides.

use proptest::prelude::*;

use crate::spec::{DOMAINS, cases, domain, naive, policy, principals, specs};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_policy_decides_as_a_naive_reading_of_its_rules(specs in specs(true)) {
        let policy = policy(&specs).for_domain(domain("home"));
        for case in cases(DOMAINS.into_iter().flat_map(principals)) {
            prop_assert_eq!(case.allowed_by(&policy), naive(&specs, "home", &case), "{:?}", case);
        }
    }

    #[test]
    fn an_explanation_agrees_with_the_decision(specs in specs(true)) {
        let policy = policy(&specs).for_domain(domain("home"));
        for case in cases(DOMAINS.into_iter().flat_map(principals)) {
            let explanation = policy.explain(&case.who, case.action, &case.message_type, &case.destination);
            let decision = policy.authorize(&case.who, case.action, &case.message_type, &case.destination);
            prop_assert_eq!(explanation.is_allowed(), decision.is_ok());
            prop_assert_eq!(explanation.why(), decision.err().map(|denied| denied.why()));
            let deciding = explanation.matched().iter().filter(|rule| rule.decides).count();
            prop_assert_eq!(deciding == 1, !explanation.matched().is_empty(), "{}", explanation);
        }
    }

    #[test]
    fn what_no_rule_allows_is_denied(mut specs in specs(true)) {
        specs.retain(|spec| spec.deny);
        let policy = policy(&specs).for_domain(domain("home"));
        for case in cases(DOMAINS.into_iter().flat_map(principals)) {
            prop_assert!(!case.allowed_by(&policy), "{:?}", case);
        }
    }

    #[test]
    fn adding_a_deny_never_allows(base in specs(true), mut more in specs(true)) {
        for spec in &mut more {
            spec.deny = true;
        }
        let stricter = policy(&[base.clone(), more].concat()).for_domain(domain("home"));
        let base = policy(&base).for_domain(domain("home"));
        for case in cases(DOMAINS.into_iter().flat_map(principals)) {
            prop_assert!(case.allowed_by(&base) || !case.allowed_by(&stricter), "{:?}", case);
        }
    }

    #[test]
    fn the_order_of_the_rules_does_not_matter(
        (specs, shuffled) in specs(true).prop_flat_map(|specs| (Just(specs.clone()), Just(specs).prop_shuffle())),
    ) {
        let (policy, shuffled) = (policy(&specs), policy(&shuffled));
        let (policy, shuffled) = (policy.for_domain(domain("home")), shuffled.for_domain(domain("home")));
        for case in cases(DOMAINS.into_iter().flat_map(principals)) {
            prop_assert_eq!(case.allowed_by(&policy), case.allowed_by(&shuffled), "{:?}", case);
        }
    }

    #[test]
    fn an_unbound_policy_takes_everyone_for_local_and_decides_nothing_once_it_names_a_domain(specs in specs(true)) {
        let policy = policy(&specs);
        let names_one = specs.iter().any(|spec| spec.domain.is_some());
        for name in DOMAINS {
            for case in cases(principals(name)) {
                prop_assert_eq!(case.allowed_by(&policy), !names_one && naive(&specs, name, &case), "{:?}", case);
            }
        }
    }
}

#[cfg(feature = "toml")]
proptest! {
    #[test]
    fn a_policy_and_its_toml_text_are_equal(specs in specs(true)) {
        let text: String = specs.iter().map(crate::spec::Spec::toml).collect();
        let read = bus_acl::Policy::from_toml(&format!("version = 1\n{text}")).unwrap();
        prop_assert_eq!(read, policy(&specs));
    }

    #[test]
    fn no_text_makes_reading_a_policy_panic(text in "(version = 1\n)?(\\[\\[rule\\]\\]\n)?\\PC*") {
        let _ = bus_acl::Policy::from_toml(&text);
    }
}

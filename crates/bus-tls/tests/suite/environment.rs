//! The configuration from the environment (A8, A9).

use std::ffi::OsString;
use std::process::{Command, Output};

use bus_tls::{
    CLIENT_CERT_VARIABLE, CLIENT_KEY_VARIABLE, CRL_VARIABLE, FileKind, KEY_PERMISSIONS_VARIABLE, KeyPermissions,
    TRUST_DOMAIN_VARIABLE, TRUST_ROOT_VARIABLE, TlsError, TlsOptions,
};

use crate::bench::Bench;

const PATHS: [(&str, &str); 3] =
    [(CLIENT_CERT_VARIABLE, "a.crt"), (CLIENT_KEY_VARIABLE, "a.key"), (TRUST_ROOT_VARIABLE, "ca.crt")];

fn lookup<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    |wanted| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value))
}

#[test]
fn the_variables_have_the_names_of_the_requirements() {
    assert_eq!(CLIENT_CERT_VARIABLE, "RANSOMEYE_TLS_CLIENT_CERT");
    assert_eq!(CLIENT_KEY_VARIABLE, "RANSOMEYE_TLS_CLIENT_KEY");
    assert_eq!(TRUST_ROOT_VARIABLE, "RANSOMEYE_TRUST_ROOT_CA");
}

#[test]
fn the_variables_give_the_options() {
    assert_eq!(TlsOptions::from_vars(lookup(&PATHS)).unwrap(), TlsOptions::new("a.crt", "a.key", "ca.crt"));
    let mut variables = PATHS.to_vec();
    variables.extend([(CRL_VARIABLE, "crl.pem"), (TRUST_DOMAIN_VARIABLE, "ransomeye.test")]);
    let expected =
        TlsOptions::new("a.crt", "a.key", "ca.crt").crl("crl.pem").trust_domain("ransomeye.test".parse().unwrap());
    assert_eq!(TlsOptions::from_vars(lookup(&variables)).unwrap(), expected);
}

#[test]
fn a_missing_or_empty_variable_is_named() {
    let kinds = [FileKind::Certificate, FileKind::PrivateKey, FileKind::TrustRoot];
    for (index, expected) in kinds.into_iter().enumerate() {
        let wanted = PATHS[index].0;
        let mut missing = PATHS.to_vec();
        missing.remove(index);
        let mut empty = PATHS.to_vec();
        empty[index].1 = "";
        for variables in [missing, empty] {
            let error = TlsOptions::from_vars(lookup(&variables)).unwrap_err();
            assert!(matches!(error, TlsError::MissingVariable { name, kind } if name == wanted && kind == expected));
            assert!(error.to_string().contains(wanted));
        }
    }
}

#[test]
fn a_malformed_trust_domain_variable_is_named() {
    let mut variables = PATHS.to_vec();
    variables.push((TRUST_DOMAIN_VARIABLE, "Not A Domain"));
    let error = TlsOptions::from_vars(lookup(&variables)).unwrap_err();
    assert!(matches!(error, TlsError::BadTrustDomainVariable { .. }));
    assert!(error.to_string().contains("RANSOMEYE_TRUST_DOMAIN"));
}

#[test]
fn the_permissions_of_the_key_can_be_chosen() {
    let options = |value| {
        let mut variables = PATHS.to_vec();
        variables.push((KEY_PERMISSIONS_VARIABLE, value));
        TlsOptions::from_vars(lookup(&variables))
    };
    let strict = TlsOptions::new("a.crt", "a.key", "ca.crt");
    assert_eq!(options("owner-only").unwrap(), strict);
    assert_eq!(options("shared").unwrap(), strict.key_permissions(KeyPermissions::Shared));
    let error = options("anybody").unwrap_err();
    assert!(matches!(error, TlsError::BadKeyPermissionsVariable { .. }));
    assert!(error.to_string().contains("RANSOMEYE_TLS_KEY_PERMISSIONS"));
}

/// Runs one of the ignored tests below in a process with exactly these variables.
fn run(test: &str, variables: &[(&str, OsString)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env_clear()
        .envs(variables.iter().cloned())
        .output()
        .unwrap()
}

#[test]
#[ignore = "run in a process of its own by the tests below"]
fn in_a_process_of_its_own() {
    match bus_tls::try_create_tls_config() {
        Ok(_) => println!("tried: good"),
        Err(error) => println!("tried: {error}"),
    }
    let config = bus_tls::create_tls_config();
    assert!(config.client_auth_cert_resolver.has_certs());
}

const CHILD: &str = "environment::in_a_process_of_its_own";

fn assert_fatal(output: &Output, reason: &str) {
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{shown}");
    let message = shown.lines().find(|line| line.starts_with("Security Fatal: Invalid mTLS Configuration"));
    assert!(message.is_some_and(|message| message.contains(reason)), "{shown}");
}

#[test]
fn create_tls_config_panics_without_variables() {
    assert_fatal(&run(CHILD, &[]), CLIENT_CERT_VARIABLE);
}

#[test]
fn create_tls_config_panics_when_a_file_is_missing_or_invalid_or_not_signed_by_the_trust_root() {
    let bench = Bench::new();
    let variables = |certificate: &str, root: &str| {
        [
            (CLIENT_CERT_VARIABLE, bench.path(certificate).into_os_string()),
            (CLIENT_KEY_VARIABLE, bench.path("agent.key").into_os_string()),
            (TRUST_ROOT_VARIABLE, bench.path(root).into_os_string()),
        ]
    };
    assert_fatal(&run(CHILD, &variables("nothing.crt", "ca.crt")), "does not exist");
    bench.write("invalid.crt", "not PEM");
    assert_fatal(&run(CHILD, &variables("invalid.crt", "ca.crt")), "is not PEM");
    bench.write("other.crt", Bench::new().ca.certificate.pem());
    assert_fatal(&run(CHILD, &variables("agent.crt", "other.crt")), "was not signed by");
    let good = run(CHILD, &variables("agent.crt", "ca.crt"));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
}

#[test]
fn the_try_form_returns_the_error() {
    let output = run(CHILD, &[]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("tried: environment variable RANSOMEYE_TLS_CLIENT_CERT is not set"), "{shown}");
}

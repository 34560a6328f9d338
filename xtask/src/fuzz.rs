//! `cargo xtask fuzz`: runs the fuzz targets, which need a nightly compiler and cargo-fuzz.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::table;
use crate::workspace::Workspace;

/// The toolchain of the fuzz targets. No other may use the unstable options that count coverage and find bad memory access.
const TOOLCHAIN: &str = "nightly";

/// How long each target runs unless told otherwise, in seconds.
const DEFAULT_SECONDS: u64 = 60;

/// What the fuzzer is told besides the time: no input longer than a key bundle, none slower than ten seconds, and figures at
/// the end.
const FUZZER_OPTIONS: &[&str] = &["-max_len=16384", "-timeout=10", "-print_final_stats=1"];

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The targets; all if empty.
    targets: Vec<String>,
    /// How long each of them, in seconds.
    seconds: u64,
}

impl Options {
    /// Reads `[TARGET...] [--seconds N]`.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { targets: Vec::new(), seconds: DEFAULT_SECONDS };
        while let Some(argument) = args.next() {
            let value = match argument.strip_prefix("--seconds") {
                Some("") => args.next().ok_or("`--seconds` needs a number")?,
                Some(value) if value.starts_with('=') => value[1..].to_owned(),
                _ if argument.starts_with('-') => return Err(format!("`fuzz` knows no argument `{argument}`")),
                _ => {
                    options.targets.push(argument);
                    continue;
                }
            };
            let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
            options.seconds = seconds.ok_or(format!("`--seconds` needs a number above 0, not `{value}`"))?;
        }
        Ok(options)
    }
}

/// Runs targets one after the other, whatever they find, and prints a table. Says whether they found nothing.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let known = targets(workspace.root())?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no fuzz target `{unknown}`: there are {}", known.join(", "));
    }
    check_tools()?;
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    let (mut rows, mut good) = (Vec::new(), true);
    for target in chosen {
        eprintln!("\n== {target} ({} s)", options.seconds);
        let (figures, clean) = run_target(workspace, target, options.seconds)?;
        good &= clean;
        rows.push([
            target.clone(),
            figures.executions.to_string(),
            figures.last_coverage.to_string(),
            figures.last_coverage.saturating_sub(figures.first_coverage).to_string(),
            if clean { "nothing found".to_owned() } else { "FAILED".to_owned() },
        ]);
    }
    println!();
    table::print(["target", "executions", "coverage", "thereof new", ""], &rows);
    if !good {
        println!(
            "Findings are in {}. Put one into fuzz/corpus/TARGET, and `cargo test --package bus-fuzz-oracles` shows it with \
             any compiler.",
            workspace.target().join("fuzz/artifacts").display()
        );
    }
    Ok(good)
}

/// The names of the targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let stems = paths.iter().filter_map(|path| path.file_stem()?.to_str());
    let mut names: Vec<String> = stems.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// Whether all is there that a run needs, or what to install.
fn check_tools() -> Result<()> {
    let answers = |program: &str, args: &[&str]| {
        let mut probe = Command::new(program);
        probe.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    if !answers("rustup", &["--version"]) {
        bail!("fuzzing needs a nightly compiler, and rustup, which finds it, is not installed: see https://rustup.rs");
    }
    if !answers("rustup", &["run", TOOLCHAIN, "rustc", "--version"]) {
        bail!("fuzzing needs a nightly compiler: `rustup toolchain install {TOOLCHAIN} --profile minimal` installs it");
    }
    if !answers("rustup", &["run", TOOLCHAIN, "cargo", "fuzz", "--version"]) {
        bail!("cargo-fuzz is not installed: `cargo install cargo-fuzz --locked` installs it");
    }
    Ok(())
}

/// Runs one target. What it learns goes into the target directory: the committed corpus is read only.
fn run_target(workspace: &Workspace, target: &str, seconds: u64) -> Result<(Figures, bool)> {
    let build = workspace.target().join("fuzz");
    let (learned, found) = (build.join("corpus").join(target), build.join("artifacts").join(target));
    for directory in [&learned, &found] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let scratch = scratch()?;
    let mut fuzz = Command::new("rustup");
    fuzz.current_dir(workspace.root()).env("CARGO_TARGET_DIR", &build).env("TMPDIR", scratch.path());
    fuzz.args(["run", TOOLCHAIN, "cargo", "fuzz", "run", "--fuzz-dir", "fuzz", target]);
    fuzz.arg(&learned).arg(workspace.root().join("fuzz/corpus").join(target)).arg("--");
    fuzz.args(FUZZER_OPTIONS).arg(format!("-max_total_time={seconds}"));
    fuzz.arg(format!("-artifact_prefix={}/", found.display()));
    let mut child = fuzz.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot run rustup")?;
    let figures = Figures::read(child.stderr.take().context("rustup has no output")?);
    let clean = child.wait().context("cannot wait for rustup")?.success();
    Ok((figures, clean))
}

/// A directory for the files that targets write, in memory where there is such a place: they write one for each input. The
/// fuzzer ends without removing them.
fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).context("cannot make a directory for temporary files")
}

/// What the fuzzer says about a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    /// The edges of the program's flow that the known inputs reach.
    first_coverage: u64,
    last_coverage: u64,
}

impl Figures {
    /// Reads an output, and shows it.
    fn read(output: impl Read) -> Self {
        let mut figures = Self::default();
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            figures.add_line(&text);
            eprint!("{text}");
            line.clear();
        }
        figures
    }

    fn add_line(&mut self, line: &str) {
        let number_after = |label| {
            let (_, rest) = line.split_once(label)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        if let Some(executions) = number_after("stat::number_of_executed_units:") {
            self.executions = executions;
        }
        if let Some(coverage) = number_after(" cov: ") {
            self.last_coverage = coverage;
            if line.contains("INITED") {
                self.first_coverage = coverage;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn targets_and_time_are_understood() {
        let options = |targets: &[&str], seconds| {
            Ok(Options { targets: targets.iter().map(|target| (*target).to_owned()).collect(), seconds })
        };
        assert_eq!(parse(""), options(&[], DEFAULT_SECONDS));
        assert_eq!(parse("scan --seconds 5 batch"), options(&["scan", "batch"], 5));
        assert_eq!(parse("--seconds=600"), options(&[], 600));
        for (line, blamed) in [
            ("--seconds", "needs a number"),
            ("--seconds 0", "`0`"),
            ("--seconds=soon", "`soon`"),
            ("--second 1", "`--second`"),
            ("--secondsx 1", "`--secondsx`"),
        ] {
            let mistake = parse(line).unwrap_err();
            assert!(mistake.contains(blamed), "{line}: {mistake}");
        }
    }

    #[test]
    fn an_unknown_target_is_refused_and_the_known_ones_are_named() {
        let options = parse("scam").unwrap();
        let error = run(&Workspace::open().unwrap(), &options).unwrap_err().to_string();
        assert!(error.contains("`scam`") && error.contains("scan"), "{error}");
    }

    #[test]
    fn the_figures_are_those_of_the_beginning_and_the_end() {
        let output = "INFO: Loaded 1 modules\n#28\tINITED cov: 1200 ft: 2000 corp: 20/2Kb exec/s: 0 rss: 50Mb\n\
                      #512\tNEW    cov: 1250 ft: 2100 corp: 21/2Kb\n#900\tDONE   cov: 1260 ft: 2110 corp: 22/2Kb\n\
                      stat::number_of_executed_units: 900\nstat::average_exec_per_sec:     90\n";
        let figures = Figures { executions: 900, first_coverage: 1200, last_coverage: 1260 };
        assert_eq!(Figures::read(output.as_bytes()), figures);
    }
}

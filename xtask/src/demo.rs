//! `cargo xtask demo`: the product's main job in one command.

/// Runs the demo with the arguments that follow `demo` on the command line.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("the demo cannot run yet (arguments: {args:?})")
}

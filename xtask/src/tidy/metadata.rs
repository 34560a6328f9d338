//! What `cargo metadata` says, as far as the checks need it.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::workspace::{Workspace, stdout_of};

/// The packages of the workspace and everything that they depend on.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
}

/// One package.
#[derive(Debug, Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    /// Where it comes from; `None` for a path.
    pub source: Option<String>,
    pub dependencies: Vec<Dependency>,
}

/// One entry of a manifest's dependency tables.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub kind: Option<String>,
}

impl Dependency {
    /// Whether only tests, examples and benchmarks use it.
    pub fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

impl Metadata {
    /// Asks cargo, which needs a network for packages of other platforms that it has never seen.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let json = stdout_of(workspace.cargo().args(["metadata", "--format-version", "1"]))?;
        serde_json::from_str(&json).context("cargo metadata gave something unexpected")
    }

    /// The packages of the workspace itself.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

#[cfg(test)]
pub mod sample {
    use super::*;

    /// A graph of path packages in the workspace, from `(name, the names of its normal dependencies)`.
    pub fn graph(packages: &[(&str, &[&str])]) -> Metadata {
        let dependencies =
            |uses: &[&str]| uses.iter().map(|name| Dependency { name: (*name).to_owned(), kind: None }).collect();
        Metadata {
            packages: packages
                .iter()
                .map(|(name, uses)| Package {
                    id: (*name).to_owned(),
                    name: (*name).to_owned(),
                    version: "0.1.0".to_owned(),
                    source: None,
                    dependencies: dependencies(uses),
                })
                .collect(),
            workspace_members: packages.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
    }
}

//! The broker changes what a message says, or who vouches for it.

use anyhow::Result;

use super::forgeries;
use super::stage::deliver;
use crate::attacks::Trial;

pub(super) async fn alters_bytes() -> Result<Trial> {
    deliver(forgeries::altered).await
}

pub(super) async fn splices_trailers() -> Result<Trial> {
    deliver(forgeries::spliced_trailers).await
}

pub(super) async fn strips_trailers() -> Result<Trial> {
    deliver(forgeries::stripped_trailers).await
}

pub(super) async fn replaces_signatures() -> Result<Trial> {
    deliver(forgeries::another_signature).await
}

pub(super) async fn merges_fields() -> Result<Trial> {
    deliver(forgeries::merged_fields).await
}

pub(super) async fn signs_two_readings() -> Result<Trial> {
    deliver(forgeries::signed_with_two_readings).await
}

pub(super) async fn truncates_batches() -> Result<Trial> {
    deliver(forgeries::truncated_batches).await
}

pub(super) async fn wraps_in_a_batch() -> Result<Trial> {
    deliver(forgeries::wrapped_in_a_batch).await
}

pub(super) async fn swaps_bundles() -> Result<Trial> {
    deliver(forgeries::swapped_bundles).await
}

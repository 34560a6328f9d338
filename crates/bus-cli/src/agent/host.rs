//! This host's processor and memory load.

use std::time::Instant;

use bus_proto::v1::TelemetryEvent;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};

/// Measures the host. The processor's load is the average since the measurement before, so measurements that would be
/// too close to each other repeat the last one.
pub(super) struct Host {
    system: System,
    measured: Instant,
    last: TelemetryEvent,
}

impl Host {
    /// Takes the two samples that the first figure needs.
    pub(super) async fn new() -> Result<Self, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        tokio::time::sleep(MINIMUM_CPU_UPDATE_INTERVAL).await;
        let mut host = Self { system, measured: Instant::now(), last: TelemetryEvent::default() };
        host.measure();
        Ok(host)
    }

    /// The load now.
    pub(super) fn load(&mut self) -> TelemetryEvent {
        if self.measured.elapsed() >= MINIMUM_CPU_UPDATE_INTERVAL {
            self.measure();
        }
        self.last
    }

    fn measure(&mut self) {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.measured = Instant::now();
        self.last = TelemetryEvent {
            cpu_usage: percent(f64::from(self.system.global_cpu_usage())),
            ram_usage: share(self.system.used_memory(), self.system.total_memory()),
        };
    }
}

/// What of `total` is `used`, in percent.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 52 bits")]
fn share(used: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { percent(used as f64 / total as f64 * 100.0) }
}

/// Within the bounds of the schema, whatever the system says.
fn percent(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, 100.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stay_within_the_schemas_bounds() {
        assert_eq!([f64::NAN, -1.0, 12.5, 101.0].map(percent), [0.0, 0.0, 12.5, 100.0]);
        assert_eq!(share(1, 0), 0.0);
        assert_eq!(share(1, 4), 25.0);
    }

    #[tokio::test]
    async fn this_host_has_memory_in_use() {
        let load = Host::new().await.unwrap().load();
        assert!(load.ram_usage > 0.0 && load.ram_usage <= 100.0, "{load:?}");
    }
}

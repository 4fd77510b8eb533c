//! `links.toml`: how machines reach each other.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::hardware::sourced;
use super::read::{Entry, File, Row};
use crate::cluster::{Link, Rdma};
use crate::error::FitError;
use crate::evidence::Evidence;

/// Kinds of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// IP, or RDMA, over a Thunderbolt or USB4 cable.
    Thunderbolt,
    /// A wire with an Ethernet adapter at each end.
    Ethernet,
    /// `InfiniBand` adapters.
    Infiniband,
    /// Wireless.
    Wifi,
    /// Between GPUs of one host.
    Host,
    /// A machine with itself.
    Loopback,
}

/// A link of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CatalogLink {
    /// Its figures.
    pub link: Link,
    /// Other names that people write.
    pub aliases: Vec<String>,
    /// What kind it is.
    pub kind: LinkKind,
    /// How the TCP figures are known.
    pub evidence: Evidence,
    /// When they were read.
    pub date: String,
    /// What a reader should know, such as sources that contradict each other.
    pub note: Option<String>,
}

/// A link as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkLine {
    id: String,
    name: String,
    kind: LinkKind,
    #[serde(default)]
    aliases: Vec<String>,
    latency_ms: f64,
    bandwidth_gb_s: f64,
    rdma_latency_ms: Option<f64>,
    rdma_bandwidth_gb_s: Option<f64>,
    evidence: Evidence,
    source: String,
    date: String,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    link: Vec<Spanned<LinkLine>>,
}

impl Entry for LinkLine {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for CatalogLink {
    fn id(&self) -> &str {
        &self.link.id
    }
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<CatalogLink>>, FitError> {
    let tables: Tables = file.parse()?;
    for entry in &tables.link {
        let line = entry.get_ref();
        let bad = [
            ("latency_ms", Some(line.latency_ms), 1e-4, 1e4),
            ("bandwidth_gb_s", Some(line.bandwidth_gb_s), 1e-4, 1e4),
            ("rdma_latency_ms", line.rdma_latency_ms, 1e-4, 1e3),
            ("rdma_bandwidth_gb_s", line.rdma_bandwidth_gb_s, 1e-4, 1e4),
        ]
        .into_iter()
        .find(|(_, value, low, high)| value.is_some_and(|value| !(*low..=*high).contains(&value)));
        if let Some((field, ..)) = bad {
            return Err(file.fault(&entry.span(), field, "not plausible"));
        }
        if line.rdma_latency_ms.is_some() != line.rdma_bandwidth_gb_s.is_some() {
            let reason = "RDMA needs its latency and its bandwidth";
            return Err(file.fault(&entry.span(), "rdma_latency_ms", reason));
        }
        if let Some((field, reason)) = sourced(&line.source, &line.date) {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    let rows = file.rows(tables.link)?.into_iter();
    Ok(rows
        .map(|row| Row {
            file: row.file,
            line: row.line,
            value: row.value.into(),
        })
        .collect())
}

impl From<LinkLine> for CatalogLink {
    fn from(line: LinkLine) -> Self {
        let rdma = line.rdma_latency_ms.zip(line.rdma_bandwidth_gb_s);
        Self {
            link: Link {
                id: line.id,
                name: line.name,
                latency_ms: line.latency_ms,
                bandwidth_gb_s: line.bandwidth_gb_s,
                rdma: rdma.map(|(latency_ms, bandwidth_gb_s)| Rdma {
                    latency_ms,
                    bandwidth_gb_s,
                }),
                source: line.source,
            },
            aliases: line.aliases,
            kind: line.kind,
            evidence: line.evidence,
            date: line.date,
            note: line.note,
        }
    }
}

//! Names of controllers, resolved by this program alone: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! The C library's resolver loads modules (NSS) as the host is configured, which a static program cannot, and asks in a thread
//! of its own, which wakes up once more to end. Nothing is kept between questions: each poll is a connection of its own, and
//! what an administrator changes counts from the next one on. Who is at an address, the certificate says.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// See [the module](self).
#[derive(Debug, Clone, Copy)]
pub struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Without name servers there are still the names of this host's own file.
            let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
                let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
                TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
            });
            let resolver = builder.build()?;
            let found = resolver.lookup_ip(name.as_str()).await?;
            // The port is the connection's to set.
            let addresses: Vec<SocketAddr> =
                found.iter().map(|address| SocketAddr::new(address, 0)).collect();
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

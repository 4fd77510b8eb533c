# Written by `cargo xtask checksums` from packaging/brigade.rb.
class Brigade < Formula
  desc "Several machines, one language model"
  homepage "@HOMEPAGE@"
  version "@VERSION@"
  license any_of: ["MIT", "Apache-2.0"]

  on_macos do
    on_arm do
      url "@DOWNLOADS@/brigade-@VERSION@-macos-arm64.tar.gz"
      sha256 "@SHA256 macos-arm64@"
    end
  end

  on_linux do
    on_intel do
      url "@DOWNLOADS@/brigade-@VERSION@-linux-x86_64.tar.gz"
      sha256 "@SHA256 linux-x86_64@"
    end
    on_arm do
      url "@DOWNLOADS@/brigade-@VERSION@-linux-arm64.tar.gz"
      sha256 "@SHA256 linux-arm64@"
    end
  end

  def install
    # The libraries lie beside the program.
    libexec.install Dir["*"]
    bin.install_symlink libexec/"brigade"
  end

  service do
    run [opt_bin/"brigade", "up"]
    keep_alive true
    log_path var/"log/brigade.log"
    error_log_path var/"log/brigade.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/brigade --version")
  end
end
